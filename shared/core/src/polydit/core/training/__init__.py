"""One trainer for every domain: accelerate, EMA, exact resume, a log that needs no service.

Nothing is imported here: `config` is read by command lines, which must not load torch.
"""
