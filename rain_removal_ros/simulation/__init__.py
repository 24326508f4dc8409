"""What a camera would see: a street that is drawn, or a video or pictures, with rain in front."""
