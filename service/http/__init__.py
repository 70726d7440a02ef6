"""From a request to the service and back: the routes, and what stands before and around them."""
