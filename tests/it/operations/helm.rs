//! The chart in `k8s/helm`, rendered by Helm's engine and compared with the objects that kustomize
//! renders.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::manifests::{Manifests, Rendered, components, list};
use super::tools::{Said, repository, run, tools, yaml};

/// The objects of one rendering, by kind and name.
type Objects = BTreeMap<(String, String), Value>;

/// Renders the chart with the values `values`, which are YAML.
fn try_chart(values: &str) -> Said {
    let program = tools().join("helm/render");
    assert!(
        program.exists(),
        "{} is missing: run .ci/run, which builds it",
        program.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    run(Command::new(program).arg(repository("k8s/helm")).arg(&file))
}

fn chart(values: &str) -> Objects {
    by_name(yaml(&try_chart(values).content().stdout))
}

fn by_name(documents: Vec<Value>) -> Objects {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let count = documents.len();
    let objects: Objects = documents
        .into_iter()
        .map(|object| {
            let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
            (key, object)
        })
        .collect();
    assert_eq!(objects.len(), count, "an object is rendered twice");
    objects
}

/// The objects that kustomize renders. The hash is removed from the name of the ConfigMap.
fn kustomized(rendered: &Rendered) -> Objects {
    let map = rendered.of_kind("ConfigMap").next().expect("a ConfigMap");
    let hashed = map["metadata"]["name"].as_str().unwrap();
    assert!(hashed.starts_with("curfew-"), "{hashed}");
    by_name(yaml(&rendered.text.replace(hashed, "curfew")))
}

#[track_caller]
fn assert_same(chart: &Objects, kustomized: &Objects) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(chart), names(kustomized));
    for (name, object) in kustomized {
        assert_eq!(&chart[name], object, "{name:?}");
    }
}

/// The name of a component among the chart's values: `ingress-nginx` becomes `ingressNginx`.
fn value_of(component: &str) -> String {
    let mut parts = component.split('-');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(1);
        name += &first.to_uppercase();
        name += rest;
    }
    name
}

#[test]
fn the_chart_renders_the_base() {
    let base = Manifests::copy().render("base");
    assert_same(&chart(""), &kustomized(&base));
}

#[test]
fn the_chart_renders_each_component() {
    let manifests = Manifests::copy();
    for component in components() {
        let rendered = manifests.render_component(&component);
        let values = format!("{}: {{enabled: true}}", value_of(&component));
        assert_same(&chart(&values), &kustomized(&rendered));
    }
}

#[test]
fn the_values_of_the_chart_reach_the_objects() {
    let values = r#"
image: {repository: registry.example.com/curfew, tag: "9"}
replicas: 4
config: "[server]\n"
configRollout: true
redis: {url: "rediss://curfew@redis.example.com:6380", ports: [6380, 26379]}
secrets: {admin: a, keys: k, redis: r}
resources: {limits: {memory: 2Gi}}
podDisruptionBudget: {enabled: false}
host: rt.example.com
hpa: {enabled: true, minReplicas: 4, maxReplicas: 5, connections: 20k, cpu: 50}
keda: {enabled: true, minReplicas: 4, maxReplicas: 5, connections: "20000", prometheus: "http://p"}
gateway: {enabled: true, parentRef: {name: door}}
ingressNginx: {enabled: true, tlsSecret: certificate}
otlp: {enabled: true, endpoint: "http://collector:4317"}
"#;

    let objects = chart(values);

    let object = |kind: &str| &objects[&(kind.to_owned(), "curfew".to_owned())];
    let spec = &object("Deployment")["spec"];
    assert_eq!(spec["replicas"], 4);
    let template = &spec["template"];
    let hash = template["metadata"]["annotations"]["curfew.dev/config"].as_str();
    assert_eq!(hash.map(str::len), Some(64));
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example.com/curfew:9");
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    let variable = |name: &str| {
        let mut variables = list(&container["env"]).iter();
        let found = variables.find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("the container has no variable {name}"))["value"].clone()
    };
    assert_eq!(
        variable("CURFEW__BACKEND__REDIS__URL"),
        "rediss://curfew@redis.example.com:6380"
    );
    assert_eq!(
        variable("CURFEW__TELEMETRY__OTLP_ENDPOINT"),
        "http://collector:4317"
    );
    let volumes = list(&template["spec"]["volumes"]).iter();
    let secrets: Vec<&str> = volumes
        .filter_map(|volume| volume["secret"]["secretName"].as_str())
        .collect();
    assert_eq!(secrets, ["a", "k", "r"]);
    assert_eq!(object("ConfigMap")["data"]["curfew.toml"], "[server]\n");
    let egress = list(&object("NetworkPolicy")["spec"]["egress"]);
    assert_eq!(egress[1]["ports"][1]["port"], 26379);
    assert!(
        !objects
            .keys()
            .any(|(kind, _)| kind == "PodDisruptionBudget")
    );
    let hpa = &object("HorizontalPodAutoscaler")["spec"];
    assert_eq!(
        (&hpa["minReplicas"], &hpa["maxReplicas"]),
        (&4.into(), &5.into())
    );
    assert_eq!(hpa["metrics"][0]["pods"]["target"]["averageValue"], "20k");
    let cpu = &hpa["metrics"][1]["containerResource"]["target"];
    assert_eq!(cpu["averageUtilization"], 50);
    let keda = &object("ScaledObject")["spec"];
    assert_eq!(keda["triggers"][0]["metadata"]["threshold"], "20000");
    assert_eq!(keda["triggers"][0]["metadata"]["serverAddress"], "http://p");
    let route = &object("HTTPRoute")["spec"];
    assert_eq!(route["hostnames"][0], "rt.example.com");
    assert_eq!(route["parentRefs"][0]["name"], "door");
    let ingress = &object("Ingress")["spec"];
    assert_eq!(ingress["rules"][0]["host"], "rt.example.com");
    assert_eq!(ingress["tls"][0]["secretName"], "certificate");
    assert_eq!(ingress["tls"][0]["hosts"][0], "rt.example.com");
}

#[test]
fn values_that_are_misspelt_or_hold_a_password_are_refused() {
    for (values, named) in [
        ("replica: 3", "replica"),
        ("hpa: {enable: true}", "enable"),
        ("redis: {url: \"redis://curfew:hunter2@redis:6379\"}", "url"),
        ("image: {digest: latest}", "digest"),
    ] {
        let said = try_chart(values);
        assert!(!said.content, "{values}");
        assert!(said.stderr.contains(named), "{values}: {}", said.stderr);
    }
}
