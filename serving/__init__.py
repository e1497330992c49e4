"""Inference below the script: photos in, enhanced photos out."""
