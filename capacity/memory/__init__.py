"""What has to fit on a chip."""
