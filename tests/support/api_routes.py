"""Every route of the API with what it asks for, for tests that go through all of them."""

from appliance.api.following import Following
from appliance.api.job_routes import CopyRoutes, JobRoutes
from appliance.api.page import PageRoutes
from appliance.api.routes import Routes
from appliance.api.routing import routes_of

ROUTE_SCOPES = {
    (route.verb, route.path): route.scope
    for owner in (Routes, PageRoutes, Following, CopyRoutes, JobRoutes)
    for route, _ in routes_of(owner)
}
