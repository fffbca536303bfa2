"""The commands: one file each, named as the command, imported when it is called."""
