"""Files of pictures and videos: read, derained and written, whole or tile by tile."""
