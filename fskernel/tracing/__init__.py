"""From a module to the graph of its layers."""
