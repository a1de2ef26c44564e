"""Linear algebra of kernel matrices: operators, factorisations, conjugate gradients, landmarks."""
