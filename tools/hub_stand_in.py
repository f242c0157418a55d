"""A stand-in for the Hugging Face hub, for tests: dataset repositories over HTTP on this machine, in memory.

    with Hub() as hub:  # hub.url goes to HF_ENDPOINT, before huggingface_hub is imported, with HF_HUB_DISABLE_XET=1
        …

It answers the calls that `huggingface_hub` 2.x makes to create a dataset repository, to upload files (preupload, LFS
batch, commit), to list them and to read them, ranges too. `hub.files('ORG/NAME')` is what a repository holds,
`hub.log` every request, and `hub.fail[pattern] = status` lets requests whose "METHOD path" matches fail. The token
`hf_write` may write to the organisation `me`; `hf_read` may only read; anything else is refused.
"""
import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

READERS, WRITERS = ('hf_read', 'hf_write'), ('hf_write',)


class Refused(Exception):
    "A status, what the hub says, and the code in its X-Error-Code."
    def __init__(self, status, text, code=''):
        super().__init__(text)
        self.status, self.code = status, code


@dataclass
class Repository:
    private: bool
    branches: dict = field(default_factory=lambda: {'main': {}})  # name → path → (bytes, whether it is in LFS)
    commits: list = field(default_factory=list)  # messages


def git_oid(data): return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


def is_large(path, size): return path.endswith(('.pt', '.statistics')) or size > 10_000_000


def path_info(path, data, large):
    "A file as `tree` and `paths-info` list it."
    info = dict(type='file', path=path, size=len(data), oid=git_oid(data))
    if large: info['lfs'] = dict(oid=hashlib.sha256(data).hexdigest(), size=len(data), pointerSize=134)
    return info


class Answers:
    "What the hub answers, call by call; `ROUTES` says which."
    def create(self, request):
        owner, name = request.json['organization'], request.json['name']
        if not request.writes(owner): raise Refused(403, f"You don't have the rights to create under {owner}")
        known, url = self.repositories, f'{self.url}/datasets/{owner}/{name}'
        if f'{owner}/{name}' in known: return dict(url=url), 409
        known[f'{owner}/{name}'] = Repository(request.json.get('visibility') == 'private')
        return dict(url=url)

    def validate(self, request): return dict(errors=[], warnings=[])

    def info(self, request, name, revision='main'):
        repository, _ = self.at(request, name, revision)
        return dict(id=name, _id=name, sha=self.commit_id(name), private=repository.private, tags=[], siblings=[])

    def branch(self, request, name, revision):
        repository, _ = self.at(request, name, 'main', write=True)
        if revision in repository.branches: return {}, 409
        repository.branches[revision] = dict(repository.branches['main'])
        return {}

    def preupload(self, request, name, revision):
        _, files = self.at(request, name, revision, write=True)
        def said(asked):
            path = asked['path']
            large = is_large(path, asked['size'])
            data, was_large = files.get(path, (None, False))
            oid = None if data is None else hashlib.sha256(data).hexdigest() if was_large else git_oid(data)
            return dict(path=path, uploadMode='lfs' if large else 'regular', shouldIgnore=False, oid=oid)
        return dict(files=[said(asked) for asked in request.json['files']])

    def batch(self, request, name):
        self.at(request, name, 'main', write=True)
        def said(asked):
            upload = dict(upload=dict(href=f'{self.url}/lfs/{asked["oid"]}'))
            return asked if asked['oid'] in self.stored else dict(asked, actions=upload)
        return dict(transfer='basic', objects=[said(asked) for asked in request.json['objects']])

    def upload(self, request, oid):
        if hashlib.sha256(request.body).hexdigest() != oid: raise Refused(400, 'not the content of this oid')
        self.stored[oid] = request.body
        return {}

    def commit(self, request, name, revision):
        repository, files = self.at(request, name, revision, write=True)
        for line in map(json.loads, request.body.splitlines()):
            key, value = line['key'], line['value']
            if key == 'header': repository.commits.append(value['summary'])
            elif key == 'file': files[value['path']] = base64.b64decode(value['content']), False
            elif key == 'lfsFile': files[value['path']] = self.stored[value['oid']], True
            elif key == 'deletedFile': del files[value['path']]
        return dict(commitUrl=f'{self.url}/datasets/{name}/commit/{self.commit_id(name)}',
                    commitOid=self.commit_id(name))

    def tree(self, request, name, revision, path=''):
        _, files = self.at(request, name, revision)
        return [path_info(file, *kept) for file, kept in sorted(files.items()) if file.startswith(path)]

    def paths_info(self, request, name, revision):
        _, files = self.at(request, name, revision)
        asked = request.json['paths'] if request.json else parse_qs(request.body.decode())['paths']
        return [path_info(path, *files[path]) for path in asked if path in files]

    def resolve(self, request, name, revision, path):
        _, files = self.at(request, name, revision)
        if path not in files: raise Refused(404, f'Entry not found: {path}', 'EntryNotFound')
        data, large = files[path]
        oid = hashlib.sha256(data).hexdigest() if large else git_oid(data)
        return data, 200, {'ETag': f'"{oid}"', 'X-Repo-Commit': self.commit_id(name)}


NAME, REVISION = r'([\w.-]+/[\w.-]+)', r'([^/]+)'
ROUTES = [(method, re.compile(pattern), answer) for method, pattern, answer in (
    ('POST', '/api/repos/create', Answers.create),
    ('POST', '/api/validate-yaml', Answers.validate),
    ('POST', f'/api/datasets/{NAME}/branch/{REVISION}', Answers.branch),
    ('POST', f'/api/datasets/{NAME}/preupload/{REVISION}', Answers.preupload),
    ('POST', f'/api/datasets/{NAME}/commit/{REVISION}', Answers.commit),
    ('POST', f'/api/datasets/{NAME}/paths-info/{REVISION}', Answers.paths_info),
    ('GET', f'/api/datasets/{NAME}/tree/{REVISION}(?:/(.*))?', Answers.tree),
    ('GET', f'/api/datasets/{NAME}/revision/{REVISION}', Answers.info),
    ('GET', f'/api/datasets/{NAME}', Answers.info),
    ('POST', rf'/datasets/{NAME}\.git/info/lfs/objects/batch', Answers.batch),
    ('PUT', '/lfs/([0-9a-f]{64})', Answers.upload),
    ('GET', f'/datasets/{NAME}/resolve/{REVISION}/(.+)', Answers.resolve))]


class Request(BaseHTTPRequestHandler):
    "One request, answered by the server's hub."
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_): pass

    @property
    def token(self): return self.headers.get('Authorization', '').removeprefix('Bearer ')
    def writes(self, owner): return self.token in WRITERS and owner == 'me'

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.json = json.loads(self.body) if 'json' in self.headers.get('Content-Type', '') and (
            'ndjson' not in self.headers['Content-Type'] and self.body) else None
        method = 'GET' if self.command == 'HEAD' else self.command
        try: return self.server.hub.answer(self, method, path)
        except Refused as e:
            headers = {'X-Error-Message': str(e)} | ({'X-Error-Code': e.code} if e.code else {})
            return dict(error=str(e)), e.status, headers

    def send(self):
        self.close_connection = self.server.hub.closed
        if self.close_connection: return
        answer = self.answer()
        body, status, headers = answer if isinstance(answer, tuple) and len(answer) == 3 else (
            *(answer if isinstance(answer, tuple) else (answer, 200)), {})
        if not isinstance(body, bytes): body = json.dumps(body).encode()
        if (asked := re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', ''))) and status == 200:
            first, last = int(asked[1]), int(asked[2] or len(body) - 1)
            headers |= {'Content-Range': f'bytes {first}-{min(last, len(body) - 1)}/{len(body)}'}
            body, status = body[first:last + 1], 206
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': len(body), 'Content-Type': 'application/json'}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = send


class Hub(Answers):
    "A hub on a free port of this machine, until the block ends."
    def __init__(self):
        self.repositories, self.stored, self.log, self.fail, self.closed = {}, {}, [], {}, False
        self.lock, self.server = threading.Lock(), ThreadingHTTPServer(('127.0.0.1', 0), Request)
        self.server.hub, self.url = self, f'http://127.0.0.1:{self.server.server_port}'

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closed = True  # for connections that are kept alive
        self.server.shutdown()
        self.server.server_close()

    def files(self, name, revision='main'):
        "Content of each file of a repository, by path."
        return {path: data for path, (data, _) in self.repositories[name].branches[revision].items()}

    def commit_id(self, name):
        told = json.dumps([name, len(self.repositories[name].commits)])
        return hashlib.sha1(told.encode()).hexdigest()

    def at(self, request, name, revision, write=False):
        "A repository and the files of its branch."
        repository = self.repositories.get(name)
        if repository is None or repository.private and request.token not in READERS:
            raise Refused(404 if request.token in READERS else 401, 'Repository not found', 'RepoNotFound')
        if write and not request.writes(name.split('/')[0]):
            if request.token not in READERS: raise Refused(401, 'Invalid username or password.')
            raise Refused(403, 'Forbidden: pass a token with write access')
        revision = 'main' if revision == self.commit_id(name) else revision
        if revision not in repository.branches: raise Refused(404, 'Invalid rev id', 'RevisionNotFound')
        return repository, repository.branches[revision]

    def answer(self, request, method, path):
        with self.lock:
            self.log.append(f'{method} {path}')
            for pattern, status in list(self.fail.items()):
                if re.search(pattern, self.log[-1]): raise Refused(status, f'told to fail with {status}')
            if request.token and request.token not in READERS:
                raise Refused(401, 'Invalid credentials in Authorization header')
            for known, pattern, answer in ROUTES:
                if known == method and (found := pattern.fullmatch(path)):
                    if known != 'GET' and not request.token and 'paths-info' not in path and '/lfs/' not in path:
                        raise Refused(401, 'Invalid username or password.')
                    return answer(self, request, *(group for group in found.groups() if group is not None))
            raise Refused(404, f'the stand-in does not know {method} {path}')
