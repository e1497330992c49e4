"""Photos: decode and encode, folders, augmentation, the backlight simulator."""
