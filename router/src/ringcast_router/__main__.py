"""`python -m ringcast_router` is the command `ringcast-router`."""

import sys

from ringcast_router.command import main

sys.exit(main())
