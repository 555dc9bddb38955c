"""From a graph to the steps of a network."""
