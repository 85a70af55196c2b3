"""The command line's commands, one module for each group of them.

A module has ``add(commands)``, which adds its parser and sets ``run`` to the function that takes
the parsed options and returns an exit status. ``greenroom.actors.cli`` lists the modules.
"""
