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

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
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
	// connectionsMax bounds the idle connections: a backup has four transfers and some requests.
	connectionsMax = 8
	connectTimeout = 15 * time.Second
)

// S3 is a Destination in a bucket of any service with the API of S3.
type S3 struct {
	client         *s3.Client
	bucket, prefix string
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
	return &S3{client: s3.New(o), bucket: bucket, prefix: prefix}, nil
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
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: requestTimeout,
		MaxIdleConnsPerHost:   connectionsMax,
		ForceAttemptHTTP2:     true,
	}}
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
	ctx, cancel := context.WithTimeout(ctx, requestTries*transferTime(c.Size))
	defer cancel()
	_, err := d.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &d.bucket,
		Key: aws.String(d.prefix + name), Body: &sealed{content: c, hash: sha256.New()},
		ContentLength: &c.Size}, signed(c.Sum))
	return d.failure("put", name, err)
}

// sealed reads a content, and fails before its last bytes unless all have the sum.
type sealed struct {
	content Content
	hash    hash.Hash
	at      int64 // the place of the reader
	hashed  int64 // bytes from the beginning that hash has
}

// Read is for reading from the beginning to the end; a retry begins anew.
func (s *sealed) Read(p []byte) (int, error) {
	if s.at != s.hashed {
		return 0, fmt.Errorf("content is read at byte %d, want %d", s.at, s.hashed)
	}
	n, err := s.content.Reader.Read(p)
	s.hash.Write(p[:n])
	s.at += int64(n)
	s.hashed = s.at
	if s.at > s.content.Size || err == io.EOF && s.at < s.content.Size {
		return 0, fmt.Errorf("%w: not %d bytes long", ErrDamaged, s.content.Size)
	}
	if s.at == s.content.Size && Sum(s.hash.Sum(nil)) != s.content.Sum {
		return 0, fmt.Errorf("%w: its SHA-256 is %s instead of %s", ErrDamaged, Sum(s.hash.Sum(nil)), s.content.Sum)
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
func transferTime(size int64) time.Duration {
	return requestTimeout + time.Duration(size/transferRateMin)*time.Second
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
	ctx, cancel := context.WithCancel(ctx)
	begun := time.AfterFunc(requestTries*requestTimeout, cancel)
	res, err := d.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &d.bucket,
		Key: aws.String(d.prefix + name), Range: span})
	if err != nil {
		cancel()
		return nil, d.failure("get", name, err)
	}
	if span != nil && res.ContentRange == nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("get %s in %s: the service does not serve parts of objects",
			name, d), res.Body.Close())
	}
	begun.Reset(transferTime(aws.ToInt64(res.ContentLength)))
	return &canceled{res.Body, func() { begun.Stop(); cancel() }}, nil
}

// canceled is a body that ends its request when it is closed.
type canceled struct {
	io.ReadCloser
	cancel func()
}

func (c *canceled) Close() error {
	err := c.ReadCloser.Close()
	c.cancel()
	return err
}

// List asks for the names by pages.
func (d *S3) List(ctx context.Context, prefix string, fn func(Object) error) error {
	pages := s3.NewListObjectsV2Paginator(d.client, &s3.ListObjectsV2Input{Bucket: &d.bucket,
		Prefix: aws.String(d.prefix + prefix)})
	for pages.HasMorePages() {
		pageCtx, cancel := context.WithTimeout(ctx, requestTries*requestTimeout)
		page, err := pages.NextPage(pageCtx)
		cancel()
		if err != nil {
			return d.failure("list", prefix, err)
		}
		for _, o := range page.Contents {
			name, ok := strings.CutPrefix(aws.ToString(o.Key), d.prefix)
			if !ok {
				continue
			}
			err := fn(Object{Name: name, Size: aws.ToInt64(o.Size),
				Modified: aws.ToTime(o.LastModified)})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes the object.
func (d *S3) Delete(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTries*requestTimeout)
	defer cancel()
	_, err := d.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &d.bucket,
		Key: aws.String(d.prefix + name)})
	return d.failure("delete", name, err)
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
	return fmt.Errorf("%s %s in %s: %w", verb, name, d, err)
}
