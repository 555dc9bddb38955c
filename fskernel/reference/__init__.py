"""The oracles: see `oracles`; `paper_neuron` is the paper itself."""

from fskernel.reference.oracles import Collapsed, Literal, collapsed, literal
from fskernel.reference.paper import paper_neuron

__all__ = ["Collapsed", "Literal", "collapsed", "literal", "paper_neuron"]
