"""The tasks. Importing this package registers them with Gymnasium under ``memrl/<name>-v0``.

``gymnasium.make`` gives one environment, ``gymnasium.make_vec`` the native vector environment with
Gymnasium's autoreset; both take the keyword arguments of the vector environment's constructor, and
``make_vec`` also ``autoreset_mode``.

A module here that defines ``GYMNASIUM_NAMES``, from name to vector class, is registered by that.
Its entry points are attributes of this package: ``TMazePassive``, ``TMazePassiveAutoreset``.
"""

from functools import partial
from importlib import import_module
from pkgutil import iter_modules

import gymnasium

from memrl.envs.autoreset import make_autoreset
from memrl.envs.single import single_class

for _module in iter_modules(__path__, f"{__name__}."):
    _code = import_module(_module.name)
    for _name, _class in getattr(_code, "GYMNASIUM_NAMES", {}).items():
        _id, _vector_class = f"memrl/{_name}-v0", getattr(_code, _class)
        if _id not in gymnasium.registry:  # a second import must not warn of overriding
            # Entry points are text, so that Gymnasium can write a specification as JSON.
            globals()[_name] = single_class(_name, __name__, _vector_class)
            globals()[f"{_name}Autoreset"] = partial(make_autoreset, _vector_class)
            _single, _vector = f"{__name__}:{_name}", f"{__name__}:{_name}Autoreset"
            gymnasium.register(_id, entry_point=_single, vector_entry_point=_vector)
