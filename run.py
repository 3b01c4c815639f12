"""One run, or a sweep with -m; ``python run.py --help`` tells how."""

from memrl.commands.train import main

if __name__ == "__main__":
    main()
