package config

// Schema is the JSON Schema (draft 2020-12) of machine files, for editors.
func Schema(fields []Field) map[string]any {
	properties := make(map[string]any)
	for i := range fields {
		properties[fields[i].Name] = fields[i].schema()
	}
	machine := map[string]any{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	single := map[string]any{"$ref": "#/$defs/machine"}
	networks := map[string]any{
		"type": "object", "description": "networks that machines name in net",
		"additionalProperties": map[string]any{},
	}
	for i := range fields {
		if fields[i].Name == "net" && fields[i].Item != nil {
			networks["additionalProperties"] = fields[i].itemSchema()
		}
	}
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Vitrine machine file",
		"$defs":   map[string]any{"machine": machine},
		"if":      map[string]any{"required": []string{"machines"}},
		"then": map[string]any{
			"type": "object", "additionalProperties": false,
			"properties": map[string]any{
				"machines": map[string]any{
					"type": "object", "minProperties": 1, "additionalProperties": single,
					"propertyNames": map[string]any{"pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$"},
				},
				"networks": networks,
			},
		},
		"else": single,
	}
}

// variable is a value that the environment gives when the file is read.
const variable = `\$\{`

func (f *Field) schema() map[string]any {
	var s map[string]any
	switch f.Kind {
	case Number:
		s = anyOf(map[string]any{"type": "integer"}, map[string]any{"type": "string", "pattern": variable})
	case Switch:
		s = anyOf(map[string]any{"type": "boolean"}, map[string]any{"type": "string", "pattern": variable})
	case Words:
		s = anyOf(map[string]any{"type": "array", "items": scalarSchema(), "minItems": 1}, map[string]any{"type": "string"})
	case List:
		s = anyOf(map[string]any{"type": "array", "items": f.itemSchema()}, f.itemSchema())
	default:
		s = scalarSchema()
		if len(f.Enum) > 0 {
			s = anyOf(map[string]any{"enum": f.Enum}, map[string]any{"type": "string", "pattern": variable})
		}
	}
	s["description"] = f.Doc
	return s
}

func anyOf(choices ...map[string]any) map[string]any { return map[string]any{"anyOf": choices} }

func scalarSchema() map[string]any {
	return map[string]any{"type": []string{"string", "number", "boolean"}}
}

func (f *Field) itemSchema() map[string]any {
	if f.Item == nil {
		return scalarSchema()
	}
	properties := make(map[string]any)
	for _, k := range f.Item.keys() {
		properties[k] = scalarSchema()
	}
	for _, k := range f.Item.Bare {
		properties[k] = anyOf(map[string]any{"type": "boolean"}, map[string]any{"type": "string", "pattern": variable})
	}
	if f.Name == "net" {
		properties["network"] = scalarSchema()
	}
	return anyOf(map[string]any{"type": "string"}, map[string]any{"type": "object", "properties": properties, "additionalProperties": false})
}
