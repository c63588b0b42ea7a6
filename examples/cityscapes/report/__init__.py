"""What people look at: pictures, curves, figures, one HTML page."""
