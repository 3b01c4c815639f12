"""One run, or a sweep with -m; ``python run.py --help`` tells how."""

from memrl.cli import main

if __name__ == "__main__":
    main()
