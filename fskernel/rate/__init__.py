"""The rate-coded network that FS networks are compared with."""
