import { BentoError } from '../../store/errors.ts';
import { isDockerHub, registryUrl } from '../../store/registry/address.ts';
import { defineCommand } from '../command.ts';

export const login = defineCommand({
  name: 'login',
  summary: 'Store credentials for a registry',
  usage: 'bento login <registry> [-u <user>] [--password-stdin]',
  details:
    'Asks the registry whether it takes them first. They are kept in ~/.config/bento/auth.json, which only you can read, and come before those of podman and Docker.',
  args: { min: 1, max: 1 },
  options: {
    username: { type: 'string', short: 'u', value: 'user', help: 'who you are there' },
    passwordStdin: { type: 'boolean', help: 'read the password or token from stdin' },
  },

  async run(ctx) {
    const [registry = ''] = ctx.args;
    registryUrl(registry, []); // a name that is none is said before the password is asked for
    const { username, password } = await whoAsks(ctx.options);
    const { openClient } = await import('../open-registry.ts');
    const { changeAuth } = await import('../../store/registry/auth-file.ts');
    const { DOCKER_HUB_KEY, ownAuthPath } = await import('../../store/registry/credentials.ts');
    const find = async () => await Promise.resolve({ kind: 'basic', username, password } as const);
    await using client = openClient(ctx, { find });
    const { wantsCredentials } = await client.ping(registry);
    if (!wantsCredentials) ctx.note(`note: ${registry} did not ask for credentials, so they could not be checked`);
    const path = ownAuthPath(process.env, ctx.home);
    await changeAuth(path, isDockerHub(registry) ? DOCKER_HUB_KEY : registry, { username, password });
    return { registry, username, checked: wantsCredentials, path };
  },

  render: ({ registry, username }) => `Logged in to ${registry} as ${username}`,
});

async function whoAsks(options: {
  username: string | undefined;
  passwordStdin: boolean;
}): Promise<{ username: string; password: string }> {
  const { ask, readStdin } = await import('../ask.ts');
  if (options.passwordStdin && options.username === undefined)
    throw new BentoError('USAGE', '--password-stdin needs -u <user>', { hint: 'bento login --help' });
  const username = options.username ?? (await ask('Username'));
  const password = options.passwordStdin ? await readStdin() : await ask('Password', true);
  if (username === '' || username.includes(':'))
    throw new BentoError('USAGE', 'the name of the user is empty or has a colon in it');
  if (password === '') throw new BentoError('USAGE', 'the password is empty');
  return { username, password };
}
