"""Picture and video files: reading, deraining whole or in tiles, and writing."""
