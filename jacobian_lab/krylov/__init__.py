"""Linear algebra from products alone: factorisations, spectra, estimates, solvers. Knows no
tensor.
"""
