# What the generator does not know of REST: problems, streams, a status beside 200.
def schema($name): {"$ref": "#/components/schemas/plasmacloud.deployer.v1.\($name)"};

# Indented lines would be code in Markdown.
walk(if type == "object" and (.description | type) == "string" then .description |= gsub("\n +"; "\n") else . end)
| .components.schemas["google.protobuf.Timestamp"].description = "RFC 3339, in UTC."
| .paths[][] |= (
    .responses.default = {
      description: "No success.",
      content: {"application/problem+json": {schema: schema("Problem")}}
    }
    | .parameters[]? |= del(.schema.description)
    # What is in the path is not in the body, and a body without need may be left out.
    | [.parameters[]? | select(.in == "path").name] as $path
    | if .requestBody.content["application/json"].schema.properties then
        .requestBody.content["application/json"].schema |= (
          .properties |= with_entries(select(.key | IN($path[]) | not))
          | .required = (.required // []) - $path)
        | .requestBody.required = (.requestBody.content["application/json"].schema.required != [])
      else . end)
| .paths["/health"].get.responses["503"] = (.paths["/health"].get.responses["200"] | .description = "The deployer is failing.")
| .paths["/api/v1/events"].get.responses["200"].content["text/event-stream"] = {schema: {type: "string"}}
# What is in no answer and no body.
| [.paths | .. | ."$ref"? // empty | ltrimstr("#/components/schemas/")] as $used
| [.components.schemas | to_entries[] | .value | .. | ."$ref"? // empty | ltrimstr("#/components/schemas/")] as $inner
| .components.schemas |= with_entries(select(.key | IN($used[], $inner[])))
