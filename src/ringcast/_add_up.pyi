add_up: object
