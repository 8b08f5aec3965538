"""The commands: arguments and printing.

Two PyTorch programs on the same cores spin while their threads wait for each other, and each becomes several times
slower. OpenMP reads how threads wait when PyTorch is loaded, which no command has done before this line.
"""

import os

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
