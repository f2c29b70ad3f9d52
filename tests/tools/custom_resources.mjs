// Checks the custom resources among the JSON documents of standard input against their schemas, and
// prints the kind of each that it has checked. CURFEW_TOOLS says where the packages are.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

// By API group: the package, and where the group is in it.
const PACKAGES = {
  'gateway.networking.k8s.io': 'gateway-api',
  'keda.sh': 'keda',
  'monitoring.coreos.com': 'prometheus-operator',
};

let failed = false;
for (const document of JSON.parse(readFileSync(0, 'utf8'))) {
  const [group, version] = document.apiVersion.split('/');
  const name = PACKAGES[group];
  if (!name) continue;
  const path = `${process.env.CURFEW_TOOLS}/node_modules/@kubernetes-models/${name}/${group}/${version}/${document.kind}.js`;
  const { [document.kind]: Model } = await import(pathToFileURL(path).href);
  try {
    new Model(document).validate();
    console.log(document.kind);
  } catch (error) {
    failed = true;
    console.error(`${document.kind} ${document.metadata.name}: ${error.message}`);
  }
}
process.exit(failed ? 1 : 0);
