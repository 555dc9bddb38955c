"""What integers mean: the neuron and its words, codes, geometry, integer weights."""
