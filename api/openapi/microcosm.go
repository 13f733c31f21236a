package openapi

// microcosm are the methods of blue.microcosm for records and identities, each with its older name.
func microcosm() []Route {
	const json = "application/json"
	record := []Parameter{
		{Name: "at_uri", Summary: "The at-uri of the record. The account is a DID or a handle.",
			Format: "at-uri", Required: true,
			Example: "at://" + exampleDID + "/" + exampleCollection + "/" + exampleRkey},
		{Name: "cid", Summary: "The version of the record. An older one is not found.", Format: "cid"}}
	identity := []Parameter{{Name: "identifier", Summary: "The account, by its DID or its handle.",
		Format: "at-identifier", Required: true, Example: exampleHandle}}
	routes := []Route{
		{Path: "/xrpc/blue.microcosm.repo.getRecordByUri", Media: json,
			Summary: "One record, by its at-uri. RecordNotFound has status 404 here.", Parameters: record,
			Errors: []string{"RecordNotFound", "HandleNotFound"},
			Fields: []Field{text("uri"), text("cid"), optional(object("value")),
				optional(text("unrepresentable"))}},
		{Path: "/xrpc/blue.microcosm.identity.resolveMiniDoc", Media: json,
			Summary:    "DID, verified handle, host and signing key of an account.",
			Parameters: identity, Errors: []string{"HandleNotFound", "DidNotFound", "DidDeactivated"},
			Fields: []Field{text("did"), text("handle"), text("pds"), text("signing_key")}},
	}
	for i, older := range []string{"repo.getUriRecord", "identity.resolveMiniDoc"} {
		route := routes[i]
		route.Path, route.Summary = "/xrpc/com.bad-example."+older,
			route.Summary+" The older name of the method."
		routes = append(routes, route)
	}
	return routes
}
