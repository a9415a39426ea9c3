"""HTTP. Amazon's notifications."""
