"""RDT (Liu et al. 2024, "RDT-1B: a Diffusion Foundation Model for Bimanual Manipulation").

A transformer denoises a chunk of actions. Time, control frequency, state and each action are tokens; the blocks attend
to the instruction and to the pictures in turns. `network` has the transformer and `positions` its tables, `conditions`
what it acts on and how training withholds parts of that, `policy` the loss and the solvers, `convert` the published
weights, `vision` the published encoder of pictures.
"""
