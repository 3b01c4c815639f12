"""The tasks. Importing this package registers them with Gymnasium under ``memrl/<name>-v0``.

``gymnasium.make`` gives one environment, ``gymnasium.make_vec`` the native vector environment;
both take the keyword arguments of the vector environment's constructor.
"""

from functools import partial

import gymnasium

from memrl.envs.single import make_single

_TASKS = {
    "TMaze": "memrl.envs.tmaze:TMazeVec",
    "TMazePassive": "memrl.envs.tmaze:TMazePassiveVec",
    "TMazeActive": "memrl.envs.tmaze:TMazeActiveVec",
}

for _name, _vector in _TASKS.items():
    _id = f"memrl/{_name}-v0"
    if _id not in gymnasium.registry:  # a second import must not warn of overriding
        gymnasium.register(
            _id, entry_point=partial(make_single, _vector), vector_entry_point=_vector
        )
