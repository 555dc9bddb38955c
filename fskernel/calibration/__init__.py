"""Ranges, alphas and corrections that are measured on images."""
