"""A simulated camera: a drawn street, a video or pictures, with synthetic rain."""
