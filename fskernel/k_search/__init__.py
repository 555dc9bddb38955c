"""The smallest K that keeps what is asked for."""
