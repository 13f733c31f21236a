package openapi

// Route is a route of the public listener, asked by GET.
type Route struct {
	Path       string
	Summary    string
	Parameters []Parameter
	// Media is the type of the answer. "": the answer is a WebSocket.
	Media string
	// Medias are the types of the answer for values of the parameter format, if it is not Media.
	Medias map[string]string
	Fields []Field // of an answer that is JSON. Nil: it is not described
	// Errors are the names of errors beside those that every route has.
	Errors []string
	// Bare says that errors have no body: the header Cistern-Error has name and message.
	Bare bool
}

// Parameter is a parameter of a query. Its value is a text unless Most is set.
type Parameter struct {
	Name     string
	Summary  string
	Format   string // name of the format in AT Protocol, such as did; "" without one
	Required bool
	InPath   bool // it stands in the path
	Repeated bool
	// Usual and Most are the default and the maximum of an integer, which is 1 or more.
	Usual, Most int
	Values      []string // all that are allowed; nil: any
	// Example is a value that works with the examples of the other parameters. "": the parameter is
	// left out of the example of the route.
	Example string
}

// Field is a field of an object.
type Field struct {
	Name     string
	Type     string // string, integer, boolean or object
	Array    bool   // of values of this type
	Optional bool
	Fields   []Field // of an object; nil: any
}

func text(name string) Field                { return Field{Name: name, Type: "string"} }
func boolean(name string) Field             { return Field{Name: name, Type: "boolean"} }
func integer(name string) Field             { return Field{Name: name, Type: "integer"} }
func object(name string, of ...Field) Field { return Field{Name: name, Type: "object", Fields: of} }

func list(name string, of ...Field) Field {
	return Field{Name: name, Type: "object", Array: true, Fields: of}
}

func texts(name string) Field { return Field{Name: name, Type: "string", Array: true} }

func optional(f Field) Field {
	f.Optional = true
	return f
}
