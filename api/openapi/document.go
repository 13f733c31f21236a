package openapi

import (
	"encoding/json"
	"slices"
	"strings"
)

// tree is an object of JSON.
type tree = map[string]any

// always are the names of errors that every route may answer.
var always = []string{"InvalidRequest", "RateLimitExceeded", "UpstreamFailure",
	"Unavailable", "InternalError"}

// Document returns the table as a document of OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1)
// for a version of the server.
func Document(version string) ([]byte, error) {
	paths := tree{}
	for _, r := range Routes() {
		paths[r.Path] = tree{"get": operation(r)}
	}
	return json.Marshal(tree{
		"openapi": "3.1.0",
		"info": tree{"title": "Cistern", "version": version,
			"summary":     "An index of AT Protocol repositories, each verified against its owner's key.",
			"description": "The public listener: it only reads, and needs no authentication."},
		"servers": []tree{{"url": "/"}},
		"paths":   paths,
	})
}

func operation(r Route) tree {
	good := tree{"description": "The answer."}
	status := "200"
	switch {
	case r.Media == "":
		status, good = "101", tree{"description": "A WebSocket: docs/http.md describes its messages."}
	case r.Media == "application/json" && r.Fields != nil:
		good["content"] = tree{r.Media: tree{"schema": objectSchema(r.Fields)}}
	default:
		content := tree{r.Media: tree{}}
		for _, media := range r.Medias {
			content[media] = tree{}
		}
		good["content"] = content
	}
	refused := tree{"description": "The request is refused. The header Cistern-Error has the reason."}
	if !r.Bare {
		refused = tree{"description": "The request is refused.", "content": tree{
			"application/json": tree{"schema": errorSchema(append(slices.Clone(r.Errors), always...))}}}
	}
	op := tree{"summary": r.Summary, "operationId": operationID(r.Path), "responses": tree{
		status:    good,
		"default": refused,
	}}
	var parameters []tree
	for _, p := range r.Parameters {
		parameters = append(parameters, parameter(p))
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	return op
}

// operationID returns the name that generated clients give to a route: the last part of a method,
// or the path.
func operationID(path string) string {
	name := path[strings.LastIndexByte(path, '.')+1:]
	if name = strings.ReplaceAll(strings.Trim(name, "/"), "/", "_"); name == "" {
		return "banner"
	}
	switch path {
	case "/openapi.json":
		return "openapi"
	case "/collections/{collection}":
		return "collection"
	case "/collections/{collection}/records":
		return "collection_records"
	case "/xrpc/com.atproto.sync.getRecord": // com.atproto.repo has the name too
		return "getRecordProof"
	case "/xrpc/com.bad-example.identity.resolveMiniDoc":
		return "resolveMiniDocOlder"
	}
	return name
}

func parameter(p Parameter) tree {
	schema := tree{"type": "string"}
	if p.Most > 0 {
		schema = tree{"type": "integer", "minimum": 1, "maximum": p.Most, "default": p.Usual}
	}
	if p.Format != "" {
		schema["format"] = p.Format
	}
	if p.Values != nil {
		schema["enum"] = p.Values
	}
	out := tree{"name": p.Name, "in": "query", "description": p.Summary, "schema": schema}
	if p.Required {
		out["required"] = true
	}
	if p.InPath {
		out["in"] = "path"
	}
	if p.Repeated {
		out["schema"] = tree{"type": "array", "items": schema}
		out["explode"] = true
	}
	if p.Example != "" {
		out["example"] = example(p)
	}
	return out
}

// example returns an example with the type of its parameter.
func example(p Parameter) any {
	switch {
	case p.Most > 0:
		return json.Number(p.Example)
	case p.Repeated:
		return []string{p.Example}
	}
	return p.Example
}

func objectSchema(fields []Field) tree {
	schema := tree{"type": "object"}
	if fields == nil {
		return schema
	}
	properties, required := tree{}, []string{}
	for _, f := range fields {
		properties[f.Name] = fieldSchema(f)
		if !f.Optional {
			required = append(required, f.Name)
		}
	}
	schema["properties"], schema["required"] = properties, required
	return schema
}

func fieldSchema(f Field) tree {
	schema := tree{"type": f.Type}
	if f.Type == "object" {
		schema = objectSchema(f.Fields)
	}
	if f.Array {
		return tree{"type": "array", "items": schema}
	}
	return schema
}

func errorSchema(names []string) tree {
	return tree{"type": "object", "required": []string{"error", "message"}, "properties": tree{
		"error": tree{"type": "string", "examples": names}, "message": tree{"type": "string"}}}
}
