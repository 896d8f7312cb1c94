"""What measures is measured, as far as that is cheap."""
