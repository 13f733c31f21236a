package objects

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// Limits on S3.
const (
	// objectBytesMax is the largest object that one request may store. Tables have some 100 MB.
	objectBytesMax = 5 << 30
	// requestTries is how often one request is sent, with growing delays, before it has failed.
	requestTries = 5
	// transferRateMin bounds the time of one transfer, in bytes a second: a slower one is stuck.
	transferRateMin = 32 << 10
	requestTimeout  = 2 * time.Minute
	// stallTries is the number of request timeouts after which an upload without progress ends. The
	// time must suffice for a refused request and the beginning of the next try.
	stallTries = 3
	// answerBytesMax bounds an answer that is not an object: a page of 1,000 names of 1 KiB, of
	// which XML may write each byte as six, or an error. errorTextMax bounds the text of an error
	// that is shown.
	answerBytesMax = 8 << 20
	headerBytesMax = 64 << 10
	errorTextMax   = 500
	// pagesMax and listTimeout bound a listing, whose pages may have few names or no name.
	pagesMax    = 1 << 16
	listTimeout = 2 * time.Hour
	// connectionsMax bounds the idle connections: a backup has four transfers and some requests.
	connectionsMax = 8
	connectTimeout = 15 * time.Second
)

// S3 is a Destination in a bucket of any service with the API of S3.
type S3 struct {
	client         *s3.Client
	bucket, prefix string
	// requestTimeout, listedMax and pagesMax; less in tests.
	timeout      time.Duration
	names, pages int
}

// OpenS3 returns the destination BUCKET/PREFIX. environ has the usual variables: AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or AWS_DEFAULT_REGION (default us-east-1),
// and AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (default: Amazon's). Buckets are named in the path.
func OpenS3(place string, environ []string) (*S3, error) {
	bucket, prefix, _ := strings.Cut(place, "/")
	if bucket == "" || strings.ContainsAny(place, "?#@ ") {
		if at := strings.LastIndexByte(place, '@'); at >= 0 { // what is before it may be a secret
			place = "…" + place[at:]
		}
		return nil, fmt.Errorf("destination %q: want s3://BUCKET/PREFIX", "s3://"+place)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	env := variables(environ)
	key, secret := env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")
	if key == "" || secret == "" {
		return nil, fmt.Errorf("destination s3://%s: set AWS_ACCESS_KEY_ID and "+
			"AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL unless the bucket is Amazon's", place)
	}
	o := s3.Options{
		Region: env("AWS_REGION", "AWS_DEFAULT_REGION"), UsePathStyle: true,
		RetryMaxAttempts: requestTries, HTTPClient: httpClient(),
		// Put signs the hash of the content, which is stronger and which every service knows.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret,
				SessionToken: env("AWS_SESSION_TOKEN")}, nil
		}),
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if at := env("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"); at != "" {
		u, err := url.Parse(at)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			return nil, errors.New("AWS_ENDPOINT_URL: want a URL like https://s3.example.com, " +
				"without a user")
		}
		o.BaseEndpoint = aws.String(at)
	}
	return &S3{client: s3.New(o), bucket: bucket, prefix: prefix,
		timeout: requestTimeout, names: listedMax, pages: pagesMax}, nil
}

// variables returns a function that reads the first variable that is set.
func variables(environ []string) func(names ...string) string {
	return func(names ...string) string {
		for _, name := range names {
			for _, kv := range environ {
				if value, ok := strings.CutPrefix(kv, name+"="); ok && value != "" {
					return value
				}
			}
		}
		return ""
	}
}

func httpClient() *http.Client {
	return &http.Client{
		Transport: bounded{&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:    connectTimeout,
			ResponseHeaderTimeout:  requestTimeout,
			MaxResponseHeaderBytes: headerBytesMax,
			MaxIdleConnsPerHost:    connectionsMax,
			ForceAttemptHTTP2:      true,
		}},
		// A signature is valid for one host and path, so a redirected request would fail; and a
		// service must not make this machine send requests to other services.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded bounds the answers that the client reads into memory: all but objects.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if req.Method != http.MethodGet || res.StatusCode >= 300 || req.URL.Query().Has("list-type") {
		res.Body = &answer{res.Body, answerBytesMax}
	}
	return res, nil
}

// answer is a body that fails after its limit.
type answer struct {
	io.ReadCloser
	left int64
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", answerBytesMax)
	}
	return n, err
}

// String returns the URL of the destination.
func (d *S3) String() string { return "s3://" + d.bucket + "/" + strings.TrimSuffix(d.prefix, "/") }

// Put stores the object by one request. Its signature covers the sum, so that a service which looks
// refuses other content; and its last bytes are not sent before all of them have that sum.
func (d *S3) Put(ctx context.Context, name string, c Content) error {
	if c.Size > objectBytesMax {
		return fmt.Errorf("put %s: %d bytes, more than the %d that one object may have", name, c.Size,
			int64(objectBytesMax))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, requestTries*d.transferTime(c.Size), errSlow)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stalled := time.AfterFunc(stallTries*d.timeout, func() { stop(errSlow) })
	defer stalled.Stop()
	_, err := d.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &d.bucket,
		Key: aws.String(d.prefix + name), ContentLength: &c.Size,
		Body: &sealed{content: c, hash: sha256.New(),
			taken: func() { stalled.Reset(stallTries * d.timeout) }}}, signed(c.Sum))
	return d.failure("put", name, slow(ctx, err))
}

// errSlow means that a transfer or a request ended because it took too long.
var errSlow = fmt.Errorf("the service hangs, or transfers less than %d bytes a second",
	transferRateMin)

// slow returns errSlow in place of err if ctx ended for it.
func slow(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		return errSlow
	}
	return err
}

// sealed reads a content, and fails before its last bytes unless all have the sum.
type sealed struct {
	content Content
	taken   func() // called when the client reads on
	hash    hash.Hash
	at      int64 // the place of the reader
	hashed  int64 // bytes from the beginning that hash has
}

// Read is for reading from the beginning to the end; a retry begins anew.
func (s *sealed) Read(p []byte) (int, error) {
	if s.at != s.hashed {
		return 0, fmt.Errorf("content is read at byte %d, want %d", s.at, s.hashed)
	}
	s.taken()
	n, err := s.content.Reader.Read(p)
	s.hash.Write(p[:n])
	s.at += int64(n)
	s.hashed = s.at
	if s.at > s.content.Size || err == io.EOF && s.at < s.content.Size {
		return 0, fmt.Errorf("%w: not %d bytes long", ErrDamaged, s.content.Size)
	}
	if s.at == s.content.Size && Sum(s.hash.Sum(nil)) != s.content.Sum {
		return 0, fmt.Errorf("%w: its SHA-256 is %s instead of %s",
			ErrDamaged, Sum(s.hash.Sum(nil)), s.content.Sum)
	}
	return n, err
}

// Seek moves to the beginning, or says how long the content is.
func (s *sealed) Seek(offset int64, whence int) (at int64, err error) {
	if s.at, err = s.content.Reader.Seek(offset, whence); err == nil && s.at == 0 {
		s.hash.Reset()
		s.hashed = 0
	}
	return s.at, err
}

// transferTime bounds the time that size bytes may take.
func (d *S3) transferTime(size int64) time.Duration {
	return d.timeout + time.Duration(size/transferRateMin)*time.Second
}

// signed has a request signed with a known sum of its body, which is then not read to compute it.
func signed(sum Sum) func(*s3.Options) {
	hash := middleware.InitializeMiddlewareFunc("KnownPayloadHash", func(ctx context.Context,
		in middleware.InitializeInput, next middleware.InitializeHandler) (
		middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(v4.SetPayloadHash(ctx, sum.String()), in)
	})
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(hash, middleware.Before)
		})
	}
}

// Get reads the object. Reading must keep a rate, so that a stuck connection ends.
func (d *S3) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return d.get(ctx, name, nil)
}

// GetRange reads a part of the object by one request.
func (d *S3) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	r, err := d.get(ctx, name, aws.String(fmt.Sprintf("bytes=%d-%d", at, at+n-1)))
	var said smithy.APIError
	if errors.As(err, &said) && said.ErrorCode() == "InvalidRange" {
		err = fmt.Errorf("%w: it ends before byte %d: %w", ErrDamaged, at, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := readRange(r, name, at, n)
	return b, errors.Join(err, r.Close())
}

func (d *S3) get(ctx context.Context, name string, span *string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := time.AfterFunc(requestTries*d.timeout, func() { cancel(errSlow) })
	res, err := d.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &d.bucket,
		Key: aws.String(d.prefix + name), Range: span})
	end.Stop()
	if err != nil {
		err = slow(ctx, err)
		cancel(nil)
		return nil, d.failure("get", name, err)
	}
	if span != nil && res.ContentRange == nil {
		cancel(nil)
		return nil, errors.Join(fmt.Errorf("get %s in %s: the service does not serve parts of objects",
			name, d), res.Body.Close())
	}
	return &paced{ReadCloser: res.Body, of: d, ctx: ctx, cancel: cancel, end: end}, nil
}

// paced is the body of an object, which must arrive at transferRateMin or faster. The time between
// reads does not count. Close ends the request.
type paced struct {
	io.ReadCloser
	of     *S3
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	end    *time.Timer   // cancels the request
	spent  time.Duration // in Read
	read   int64         // bytes
}

func (b *paced) Read(p []byte) (int, error) {
	begun := time.Now()
	b.end.Reset(b.of.transferTime(b.read) - b.spent)
	n, err := b.ReadCloser.Read(p)
	b.end.Stop()
	b.spent += time.Since(begun)
	b.read += int64(n)
	if err != nil && err != io.EOF {
		err = brief{slow(b.ctx, err)}
	}
	return n, err
}

func (b *paced) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// List asks for the names by pages.
func (d *S3) List(ctx context.Context, prefix string, fn func(Object) error) error {
	ctx, stop := context.WithTimeoutCause(ctx, listTimeout, errSlow)
	defer stop()
	listed := listed{of: d, prefix: prefix, fn: fn, most: d.names}
	pages := s3.NewListObjectsV2Paginator(d.client, &s3.ListObjectsV2Input{Bucket: &d.bucket,
		Prefix: aws.String(d.prefix + prefix)})
	last := "" // the token of the page before
	for n := 1; pages.HasMorePages(); n++ {
		pageCtx, cancel := context.WithTimeoutCause(ctx, requestTries*d.timeout, errSlow)
		page, err := pages.NextPage(pageCtx)
		err = slow(pageCtx, err)
		cancel()
		if err != nil {
			return d.failure("list", prefix, err)
		}
		if err := listed.page(page.Contents, d.prefix); err != nil {
			return err
		}
		token := aws.ToString(page.NextContinuationToken)
		switch {
		case !aws.ToBool(page.IsTruncated):
		case token == "" || token == last:
			return fmt.Errorf("list %s in %s: %w: page %d is not the last one, and names no next one",
				prefix, d, ErrListing, n)
		case n == d.pages:
			return fmt.Errorf("list %s in %s: %w: it has more than %d pages", prefix, d, ErrListing, n)
		}
		last = token
	}
	return nil
}

// page passes on the objects of a page, whose keys begin with a prefix.
func (l *listed) page(all []types.Object, prefix string) error {
	for _, o := range all {
		name, ok := strings.CutPrefix(aws.ToString(o.Key), prefix)
		if err := l.count(name); err != nil {
			return err
		}
		if !ok || !strings.HasPrefix(name, l.prefix) {
			continue
		}
		err := l.fn(Object{Name: name, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete deletes the object.
func (d *S3) Delete(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTries*d.timeout, errSlow)
	defer cancel()
	_, err := d.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &d.bucket,
		Key: aws.String(d.prefix + name)})
	return d.failure("delete", name, slow(ctx, err))
}

// failure says which request failed, and finds out whether the object is missing.
func (d *S3) failure(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	var said smithy.APIError
	if errors.As(err, &said) && (said.ErrorCode() == "NoSuchKey" || said.ErrorCode() == "NotFound") {
		return fmt.Errorf("%s in %s: %w", name, d, ErrNotFound)
	}
	return fmt.Errorf("%s %s in %s: %w", verb, name, d, brief{err})
}

// brief is an error whose text a service chose in part: it is shortened and made printable.
type brief struct{ error }

// Unwrap returns the whole error.
func (b brief) Unwrap() error { return b.error }

func (b brief) Error() string {
	text := b.error.Error()
	if len(text) > errorTextMax {
		text = text[:errorTextMax] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}
