"""Pictures, clips and rain: what networks are trained and measured on."""
