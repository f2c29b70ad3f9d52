//! The permissions of every pod, and the images.

use super::manifests::{Manifests, list};
use super::tools::{text_of, yaml_file};

/// The example for OpenShift, where the cluster chooses the user that pods run as.
const OPENSHIFT: &str = "examples/openshift";

#[test]
fn pods_keep_to_the_restricted_standard() {
    for rendered in Manifests::copy().everything() {
        for deployment in rendered.of_kind("Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], true);
            // On OpenShift, the cluster assigns the user.
            let user = context["runAsUser"].as_u64();
            assert!(user > Some(0) || rendered.folder == OPENSHIFT && user.is_none());
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["enableServiceLinks"], false);
            for key in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[key].is_null(), "{key}");
            }
            for container in list(&pod["containers"]) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["capabilities"]["drop"][0], "ALL");
                assert!(context["capabilities"]["add"].is_null());
                let resources = &container["resources"];
                assert!(resources["requests"]["cpu"].is_string());
                assert!(resources["limits"]["memory"].is_string());
                assert!(resources["limits"]["cpu"].is_null(), "throttles");
            }
        }
        for namespace in rendered.of_kind("Namespace") {
            let labels = &namespace["metadata"]["labels"];
            assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
        }
    }
}

#[test]
fn images_have_a_version_and_the_gateways_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    let has_version = |image: &str| {
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image}"));
        assert!(tag != "latest" && !tag.is_empty(), "{image}");
    };
    for rendered in Manifests::copy().everything() {
        for deployment in rendered.of_kind("Deployment") {
            for container in list(&deployment["spec"]["template"]["spec"]["containers"]) {
                has_version(container["image"].as_str().unwrap());
            }
        }
        let image = rendered.container()["image"].as_str().unwrap();
        let (name, tag) = image.rsplit_once(':').unwrap();
        assert!(name == "curfew" || name.ends_with("/curfew"), "{image}");
        assert_eq!(tag, version, "{}", rendered.folder);
    }
    let compose = yaml_file("deploy/compose.yaml");
    for (name, service) in compose["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        has_version(image);
        if name.starts_with("curfew-") {
            assert_eq!(image, format!("curfew:{version}"));
        }
    }
    let build = format!("docker build -f deploy/Dockerfile -t curfew:{version} .");
    for path in ["deploy/Dockerfile", "deploy/README.md"] {
        assert!(text_of(path).contains(&build), "{path} lacks {build:?}");
    }
}

#[test]
fn pods_run_as_the_user_of_the_image() {
    let dockerfile = text_of("deploy/Dockerfile");
    let user = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("USER "));
    let (user, group) = user.unwrap().split_once(':').unwrap();
    for rendered in Manifests::copy().everything() {
        if rendered.folder == OPENSHIFT {
            continue;
        }
        let context = &rendered.pod()["securityContext"];
        assert_eq!(context["runAsUser"].to_string(), user);
        assert_eq!(context["runAsGroup"].to_string(), group);
        let arguments = list(&rendered.container()["args"]);
        assert_eq!(arguments[0], "serve");
        let path = arguments[2].as_str().unwrap();
        let mounts = list(&rendered.container()["volumeMounts"]);
        let mount = mounts.iter().find(|mount| mount["name"] == "config");
        assert_eq!(
            path,
            format!(
                "{}/curfew.toml",
                mount.unwrap()["mountPath"].as_str().unwrap()
            )
        );
        assert!(
            rendered.container()["command"].is_null(),
            "the manifest sets the command, which the image already has"
        );
    }
}

#[test]
fn one_node_at_a_time_leaves_and_only_once_another_has_come() {
    let rendered = Manifests::copy().render("overlays/production");
    let spec = &rendered.object("Deployment", "curfew")["spec"];
    let rolling = &spec["strategy"]["rollingUpdate"];
    assert_eq!(rolling["maxSurge"], 1);
    assert_eq!(rolling["maxUnavailable"], 0);
    assert!(spec["minReadySeconds"].as_u64().unwrap() > 0);
    let budget = &rendered.object("PodDisruptionBudget", "curfew")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let name = rendered.object("ConfigMap", "curfew")["metadata"]["name"].as_str();
    assert_eq!(
        name,
        Some("curfew"),
        "the name has a hash, so each change restarts the nodes"
    );
}
