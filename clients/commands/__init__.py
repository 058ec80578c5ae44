"""The commands of `moss-ttsd`, a file each."""
