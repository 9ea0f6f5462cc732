"""What a sweep leaves: its front, tested, confirmed, published."""
