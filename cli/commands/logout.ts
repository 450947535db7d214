import { isDockerHub } from '../../store/registry/address.ts';
import { defineCommand } from '../command.ts';

export const logout = defineCommand({
  name: 'logout',
  summary: 'Forget the credentials for a registry',
  usage: 'bento logout <registry>',
  details: 'Those that podman or Docker have stay.',
  args: { min: 1, max: 1 },

  async run({ home, args: [registry = ''] }) {
    const { changeAuth } = await import('../../store/registry/auth-file.ts');
    const { DOCKER_HUB_KEY, ownAuthPath } = await import('../../store/registry/credentials.ts');
    const path = ownAuthPath(process.env, home);
    const removed = await changeAuth(path, isDockerHub(registry) ? DOCKER_HUB_KEY : registry, undefined);
    return { registry, removed, path };
  },

  render: ({ registry, removed }) => (removed ? `Logged out of ${registry}` : `Not logged in to ${registry}`),
});
