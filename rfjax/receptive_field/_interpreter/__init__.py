"""The interpreter of jaxprs: which input pixels every number of a function can depend on.

tracing     goes through a function, operation by operation
reach       what one array depends on: a box of input pixels for each number
rules       the table of operations, and the rules of those that work number by number
windows     the rules of convolutions and poolings
positions   of what is read and written at positions, such as gathers
fourier     of Fourier transforms, which are convolutions between a transform and its inverse
matrices    of linear systems and factors of matrices
bits        of random numbers and reinterpreted bits
constants   numbers that do not depend on the input, computed where something turns on them
"""
