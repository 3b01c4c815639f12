"""Train one run, or a sweep with -m; see ``python run.py --help``."""

from memrl.commands.train import main

if __name__ == "__main__":
    main()
