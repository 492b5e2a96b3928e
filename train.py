"""Trains a network; `rfjax.train` in a checkout, where nothing need be installed as a command.

python train.py --config=configs/quickstart.py --workdir=runs/first
python train.py --config=configs/quickstart.py:dog --workdir=runs/dog --config.steps=3000
"""

from rfjax import train

if __name__ == "__main__":
    train.main()
