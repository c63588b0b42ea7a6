"""What people look at: pictures, curves, tables, one HTML page."""
