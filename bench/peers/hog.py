"""The busy loop of a server, in a process of its own. It reads lines as the server does, and ends with its input."""
from common import Hog

hog = Hog()
print("ready", flush=True)
hog.obey()
